"""The machine: errors, files, processes, imports, seeds."""
