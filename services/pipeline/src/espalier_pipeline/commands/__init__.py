"""The commands, by what a user wants: building, looking, the endpoint, what is installed."""
