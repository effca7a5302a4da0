"""What happens to a chunk of records: `interest` makes lists of events, `rekey` gives strays their key."""
