"""Many visitors: runs that wait, are executed, are watched, and end."""
