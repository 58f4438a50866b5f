"""The command line: `sacjax`."""
