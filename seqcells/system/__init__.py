"""What the process and the machine are: processors, folders on disk, settings of the engines."""
