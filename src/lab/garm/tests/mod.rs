//! What the simulator is relied upon for: one test for each trap of `reference/garm-api.md` §11 and §14.
