-- Every line of a statement with the account's balance after it.
CREATE VIEW account_running_balance AS
SELECT account_id, booked_at, payment_id, side, amount, other_account, reference,
       sum(amount) OVER (PARTITION BY account_id ORDER BY booked_at, payment_id, side) AS balance_after
FROM account_statement;

COMMENT ON VIEW account_running_balance IS 'Statement lines in order, each with the balance after it.';
