"""The plugin surface: what a plugin may contribute, and how it is found."""
