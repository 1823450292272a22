"""What draws on several rooms: intervals by every method, what a summary says about the rows, slim fits."""
