"""The HTTP routes of the endpoint, as a FastAPI application that knows nothing about Ray."""
