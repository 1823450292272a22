"""Many linear fits of one design at once: other responses, and rows or groups left out."""
