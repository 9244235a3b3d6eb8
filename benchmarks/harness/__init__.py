"""Parts that the benchmark commands share: timing, results, tables, models. No command is here."""
