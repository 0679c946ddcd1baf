//! The rules of the cold tier: object names, the footer, which object wins, what may go.
