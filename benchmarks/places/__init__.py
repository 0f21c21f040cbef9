"""Where the measurements of each server happen: made empty before each one, removed at the end."""
