//! Who one is here, and who may do what.

use handover::{DatabaseName, InstanceName};
use proto::v1;

use super::{
    error::Error,
    fields::{Fields, checked},
};
use crate::{
    auth::{Action, Caller, Name, Place, Principal, Proof, Resource, Within},
    core::Core,
    store,
};

pub(super) fn who_am_i(caller: &Caller) -> v1::WhoAmIResponse {
    let principal = caller.principal();
    v1::WhoAmIResponse {
        principal: principal.name.to_string(),
        proof: principal.proof.as_str().to_owned(),
        groups: caller.auth().map(|auth| auth.groups_of(principal)).unwrap_or_default(),
        policy: caller.auth().is_some_and(|auth| auth.has_policy()),
    }
}

pub(super) async fn check(
    core: &Core,
    caller: &Caller,
    request: v1::CheckAccessRequest,
) -> Result<v1::CheckAccessResponse, Error> {
    let mut fields = Fields::default();
    let mut take = |field: &str, problem: String| fields.wrong(field, problem);
    let name = match request.principal.as_str() {
        "" => Some(caller.name().clone()),
        text => Name::parse(text).map_err(|problem| take("principal", problem)).ok(),
    };
    let action = Action::parse(&request.action).map_err(|problem| take("action", problem)).ok();
    let about = About::parse(&request.resource).map_err(|problem| take("resource", problem)).ok();
    fields.check()?;
    let name = checked(name, "principal")?;
    let action = checked(action, "action")?;
    let resource = checked(about, "resource")?.resolve(core).await?;
    if !resource.takes(action) {
        let mut fields = Fields::default();
        fields.wrong("action", format!("there is no right to {action} a {}", resource.kind()));
        fields.check()?;
    }
    // What one may do oneself is no secret.
    let asked = match name == *caller.name() {
        true => caller.principal().clone(),
        false => {
            caller.may_ask_about_others(core)?;
            Principal::new(name, Proof::None)
        }
    };
    let verdict = caller.judge(&asked, action, &resource);
    Ok(v1::CheckAccessResponse {
        allowed: verdict.allowed,
        policies: verdict.policies,
        principal: asked.name.to_string(),
        action: action.to_string(),
        resource: resource.to_string(),
    })
}

/// A resource as it is written.
enum About {
    Coordinator,
    Group(Within),
    Instance(InstanceName),
    Database(InstanceName, DatabaseName),
}

impl About {
    fn parse(text: &str) -> Result<Self, String> {
        let instance = |text: &str| InstanceName::parse(text).map_err(|error| error.to_string());
        match text.split_once(':') {
            None if text == "coordinator" => Ok(Self::Coordinator),
            Some(("instance", name)) => Ok(Self::Instance(instance(name)?)),
            Some(("resource-group", name)) => Ok(Self::Group(Within::parse(name))),
            Some(("database", path)) => {
                let (at, name) = path.split_once('/').ok_or("write a database as database:INSTANCE/NAME")?;
                let name = DatabaseName::parse(name).map_err(|error| error.to_string())?;
                Ok(Self::Database(instance(at)?, name))
            }
            _ => Err(format!(
                "{text:?} is no resource: write database:INSTANCE/NAME, instance:NAME, resource-group:NAME or coordinator"
            )),
        }
    }

    async fn resolve(self, core: &Core) -> Result<Resource, store::Error> {
        let place = async |name: InstanceName| -> Result<Place, store::Error> {
            let known = core.instances.get(&name).await?;
            Ok(known.map_or_else(|| Place::unknown(name), |known| Place::of(&known.record)))
        };
        Ok(match self {
            Self::Coordinator => Resource::Coordinator,
            Self::Group(within) => Resource::Group(within),
            Self::Instance(name) => Resource::Instance(place(name).await?),
            Self::Database(name, database) => Resource::Database(place(name).await?, database),
        })
    }
}
