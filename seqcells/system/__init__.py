"""The process and the machine: processors, folders on disk, settings of the engines."""
