"""The built-in plug-ins, registered by entry point exactly as a stranger's would be."""
