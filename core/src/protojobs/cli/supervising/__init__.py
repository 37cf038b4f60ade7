"""Worker processes: started, watched, replaced and ended by one supervisor."""
