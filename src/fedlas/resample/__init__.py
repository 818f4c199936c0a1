"""What is drawn or held out together: clusters of samples, and copies of one."""
