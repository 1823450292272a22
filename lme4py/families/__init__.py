"""One module per kind of response, and the links."""
