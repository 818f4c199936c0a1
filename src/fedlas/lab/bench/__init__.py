"""Many runs: all losses and seeds of a recipe, where they execute, what a dry run says."""
