"""The command line: arguments in, text or JSON out; decides nothing itself."""
