//! Where journals and what else outlives a run are kept.

use std::path::PathBuf;

/// Returns the folder that the command line uses: `$XDG_STATE_HOME/haul`, else `~/.local/state/haul`. `None` without a home.
pub fn usual_state_dir() -> Option<PathBuf> {
    let absolute = |path: &PathBuf| path.is_absolute();
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(absolute);
    let home = || std::env::home_dir().filter(absolute).map(|home| home.join(".local/state"));
    state.or_else(home).map(|state| state.join("haul"))
}
