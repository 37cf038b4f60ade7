-- Store time.

return format('%.0f', now)
