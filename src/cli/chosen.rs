//! The projection that a verb is about, as the catalog has it.

use super::{Common, Failure, apply, plans};
use crate::config::Settings;
use crate::plan::Plan;
use crate::store::generations::{self, Listed, State};
use crate::store::{catalog, read};

/// A projection and its generations.
pub struct Chosen {
    pub settings: Settings,
    pub pool: sqlx::PgPool,
    pub name: String,
    /// Those that are folded.
    pub listed: Vec<Listed>,
    plans: Vec<Plan>,
}

impl Chosen {
    /// Finds a projection by its name, or by that of one of its views.
    pub async fn find(common: &Common, name: &str) -> Result<Chosen, Failure> {
        let settings = common.settings()?;
        // One that was taken out of the files is in the catalog all the same, with its definition.
        let plans = if settings.projections.exists() { plans(&settings.projections)? } else { Vec::new() };
        let pool = apply::pool(&settings)?;
        catalog::require(&pool).await.map_err(Failure::refused)?;
        let mut listed = generations::list(&pool).await.map_err(Failure::failed)?;
        let known: Vec<String> = listed.iter().map(|listed| listed.generation.projection.clone()).collect();
        let name = match known.iter().any(|known| known == name) {
            true => name.to_string(),
            false => {
                let of_view = read::source_of(&pool, name).await.map_err(Failure::failed)?;
                of_view.map_or_else(|| name.to_string(), |source| source.projection)
            }
        };
        listed.retain(|listed| listed.generation.projection == name);
        if listed.is_empty() {
            let near = crate::spec::diagnostic::suggest(&name, known.iter().map(String::as_str));
            let near = near.map(|near| format!("; {near}")).unwrap_or_default();
            return Err(Failure::refused(format!("the catalog has no projection `{name}`{near}")));
        }
        Ok(Chosen { settings, pool, name, listed, plans })
    }

    /// The generation that readers see.
    pub fn live(&self) -> Result<&Listed, Failure> {
        let live = self.of_state(State::Live).next();
        live.ok_or_else(|| Failure::refused(format!("`{}` has no live generation", self.name)))
    }

    pub fn of_state(&self, state: State) -> impl Iterator<Item = &Listed> {
        self.listed.iter().filter(move |listed| listed.state == state)
    }

    /// The newest of a state.
    pub fn newest(&self, state: State) -> Option<&Listed> {
        self.of_state(state).max_by_key(|listed| listed.generation.number)
    }

    /// What a generation is folded by.
    pub fn plan(&self, listed: &Listed) -> Result<Plan, Failure> {
        listed.plan(&self.plans).map_err(Failure::refused)
    }
}
