"""When a schedule is due: cron expressions and intervals, across changes of the clock."""
