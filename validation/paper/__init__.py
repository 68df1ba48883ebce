"""The paper's testable sentences, verbatim, one file a section, each with the claims that bear on it."""
