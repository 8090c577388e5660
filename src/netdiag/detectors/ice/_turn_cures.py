"""What to do when a TURN server refuses, or what it granted runs out: it depends on the error."""

LAPSED = ("Restart ICE or call again now; have the client renew permissions before 300 s, channels before 600 s, the "
          "allocation before its lifetime.")
DO_NOW = {
    401: "Give the client fresh credentials; compare the clocks and the shared secret of the TURN server and of what "
         "issues them.",
    403: "Allow this peer's address range on the TURN server.",
    438: "Let the client repeat the request with the nonce of the 438, or restart it.",
    441: "Let the client use the credentials with which it made the allocation.",
    486: "Raise the quota of this user, or remove allocations that nobody uses.",
    508: "Give the TURN server more relay ports or bandwidth, or add a server."}
"""What helps at once with each error (RFC 8656 §19)."""
TOLD = "No capture is needed: the log of the TURN server says why it refused, with this client's user name and time."
