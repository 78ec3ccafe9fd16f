"""What people see: lines, tables, colours, and what goes on."""
