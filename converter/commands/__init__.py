"""The commands, one a module, each imported when it runs: parse, make one library call, print."""
