"""What is predicted: losses, metrics and tables of a task."""
