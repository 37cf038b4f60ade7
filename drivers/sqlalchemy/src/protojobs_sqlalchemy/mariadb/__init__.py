"""MariaDB and MySQL: claim and settle in two packets; waiting by polling."""
