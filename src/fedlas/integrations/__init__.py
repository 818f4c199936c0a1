"""FedLAS in other libraries: one module for each, named after it and imported only by its users."""
