"""The commands, one module each: arguments in, calls of the library, output."""
