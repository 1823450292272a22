"""Planning studies, and many models at once: made models, power, one model for each response or group."""
