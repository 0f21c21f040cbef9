"""Kit: what rows and chaos tests need: a faulty network, processes to kill, what they did, a broker to share."""
