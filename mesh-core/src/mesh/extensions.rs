//! State that other crates keep beside a mesh: one value of each type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

type Cell = Arc<OnceLock<Arc<dyn Any + Send + Sync>>>;

#[derive(Default)]
pub(super) struct Extensions {
    cells: Mutex<HashMap<TypeId, Cell>>,
}

impl Extensions {
    /// The one `T`. `init` runs at most once, outside the map's lock: it may ask for other extensions.
    pub(super) fn of<T: Any + Send + Sync>(&self, init: impl FnOnce() -> T) -> Arc<T> {
        let cell = {
            let mut cells = self.cells.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(cells.entry(TypeId::of::<T>()).or_default())
        };
        let value = cell.get_or_init(|| Arc::new(init()));
        match Arc::clone(value).downcast::<T>() {
            Ok(value) => value,
            #[allow(clippy::unreachable)] // the cell of `TypeId::of::<T>()` is only ever filled with a `T`
            Err(_) => unreachable!("the cell of a type holds that type"),
        }
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions").finish_non_exhaustive()
    }
}
