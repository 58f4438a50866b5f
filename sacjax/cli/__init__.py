"""The command line, `sacjax`."""
