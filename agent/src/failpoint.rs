//! The failpoints of an agent: the steps that the engines' guard knows.

use async_trait::async_trait;
use engines::guard::Onlooker;
use service::{
    Env,
    failpoint::{Error, Failpoints, Side},
};
use std::sync::Arc;

struct Armed(Failpoints);

#[async_trait]
impl Onlooker for Armed {
    async fn before(&self, step: &'static str) {
        self.0.reach(step, Side::Before).await;
    }
    async fn after(&self, step: &'static str) {
        self.0.reach(step, Side::After).await;
    }
}

/// Whom the guard has to tell, if a test armed failpoints.
pub fn onlooker(env: &Env, steps: &[&str]) -> Result<Option<Arc<dyn Onlooker>>, Error> {
    let armed = Failpoints::from_environment(env, steps)?;
    Ok(armed.map(|points| Arc::new(Armed(points)) as Arc<dyn Onlooker>))
}
