//! What a connection amounts to, and what rankings go by.

/// What the numbers of a connection amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionStatus {
    /// Too little is known either way.
    Unknown,
    /// One would go out of their way, the other has shown little sign of it.
    OneSided,
    /// There is evidence, not yet enough to count on.
    Budding,
    /// Both would go out of their way for each other.
    Real,
    /// It was real when they last interacted.
    Fading,
    /// Trust was broken.
    Broken,
}

/// What a ranking goes by; the best or the latest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RankOrder {
    /// The lower bound of the mutual willingness.
    #[default]
    Mutual,
    /// The lower bound of the peer's willingness.
    TheyWouldHelp,
    /// The lower bound of the owner's willingness.
    YouWouldHelp,
    /// The latest interaction either way.
    LastInteraction,
}
