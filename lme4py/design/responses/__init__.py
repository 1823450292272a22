"""Several responses in a row of the data: designs of long rows with one response each."""
