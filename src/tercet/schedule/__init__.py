"""Work to be done later: taking jobs and running them."""
