-- Store time.

return text(now)
