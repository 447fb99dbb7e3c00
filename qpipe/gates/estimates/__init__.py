"""From outcomes to one number with one-sided bounds, and how many more rows would settle it."""
