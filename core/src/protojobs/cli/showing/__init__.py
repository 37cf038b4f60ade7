"""Values as people type and read them: tables, text, JSON, ages, progress."""
