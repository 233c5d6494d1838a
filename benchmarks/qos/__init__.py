"""What failures and noise cost others: shares of handler time, throughput, waiting times."""
