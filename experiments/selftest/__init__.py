"""Known answers and independent implementations that every metric and bound is held against."""
