"""What all programs need: the command line's shell, types of options, progress, states to resume from, tables."""
