//! The policies: Cedar, with the schema of Causeway, and the groups file. Nothing is allowed that no policy permits.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::str::FromStr as _;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId, PolicySet, Request,
    RestrictedExpression, Schema, ValidationMode, Validator,
};

use super::names::{self, Action, Name, Principal};
use super::resource::{Place, Resource, Within};

/// What policies may be about.
const SCHEMA: &str = include_str!("schema.cedarschema");

/// What holds where no policy file is given: whoever was given a certificate or a token as a user may do everything. The
/// certificates of agents are good for nothing here, for they lie on machines of others.
const EVERYBODY: &str = r#"
@id("built in: every user")
permit (principal is User, action, resource);
@id("built in: this machine, without TLS")
permit (principal is Anonymous, action, resource);
"#;

/// Most errors of one file that are told at once.
const ERRORS_MAX: usize = 10;

/// Policies and groups.
pub(super) struct Policy {
    schema: Schema,
    policies: PolicySet,
    /// The groups each member is directly in. Members are users, services and groups.
    groups: HashMap<EntityUid, BTreeSet<String>>,
}

/// What the policies say about one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Whether it is allowed.
    pub allowed: bool,
    /// The policies that decided: those that permit it, or those that forbid it; none if none permits it.
    pub policies: Vec<String>,
}

impl Policy {
    /// The built-in policy.
    pub(super) fn everybody() -> Self {
        Self::parse(EVERYBODY, None).expect("the built-in policy is good, as a test proves")
    }

    /// The texts of the policy file and, if there is one, of the groups file.
    pub(super) fn read(texts: &[String]) -> Result<Self, String> {
        let policies = texts.first().map_or("", String::as_str);
        Self::parse(policies, texts.get(1).map(String::as_str))
    }

    fn parse(policies: &str, groups: Option<&str>) -> Result<Self, String> {
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| format!("schema: {error}"))?;
        let policies = named(policies)?;
        let found = Validator::new(schema.clone()).validate(&policies, ValidationMode::Strict);
        let errors: Vec<String> = found.validation_errors().take(ERRORS_MAX).map(ToString::to_string).collect();
        if !errors.is_empty() {
            return Err(format!("{}; see docs/security.md for what policies may be about", errors.join("; ")));
        }
        for warning in found.validation_warnings() {
            tracing::warn!(%warning, "a policy looks odd");
        }
        Ok(Self { schema, policies, groups: groups.map(members).transpose()?.unwrap_or_default() })
    }

    /// What the policies say.
    pub(super) fn judge(&self, who: &Principal, action: Action, resource: &Resource) -> Verdict {
        match self.ask(who, action, resource) {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::error!(error, who = %who.name, %action, %resource, "a question to the policies fails; it is denied");
                Verdict { allowed: false, policies: Vec::new() }
            }
        }
    }

    fn ask(&self, who: &Principal, action: Action, resource: &Resource) -> Result<Verdict, String> {
        let principal = of_name(&who.name);
        let mut entities = self.member(principal.clone(), &who.groups);
        let (target, about) = of_resource(resource)?;
        entities.extend(about);
        let entities = Entities::from_entities(entities, Some(&self.schema)).map_err(|error| error.to_string())?;
        let action = uid("Action", action.as_str());
        let request = Request::new(principal, action, target, Context::empty(), Some(&self.schema))
            .map_err(|error| error.to_string())?;
        let answer = Authorizer::new().is_authorized(&request, &self.policies, &entities);
        // Cedar leaves out a policy that fails. It might have been a prohibition.
        if let Some(error) = answer.diagnostics().errors().next() {
            return Err(error.to_string());
        }
        let mut policies: Vec<String> = answer.diagnostics().reason().map(ToString::to_string).collect();
        policies.sort_unstable();
        Ok(Verdict { allowed: answer.decision() == Decision::Allow, policies })
    }

    /// All groups somebody is in, directly or through others.
    pub(super) fn groups_of(&self, who: &Principal) -> Vec<String> {
        let mut groups = BTreeSet::new();
        let mut next: Vec<String> = who.groups.iter().cloned().collect();
        next.extend(self.groups.get(&of_name(&who.name)).into_iter().flatten().cloned());
        while let Some(group) = next.pop() {
            if groups.insert(group.clone()) {
                next.extend(self.groups.get(&uid("Group", &group)).into_iter().flatten().cloned());
            }
        }
        groups.into_iter().collect()
    }

    /// A caller with all groups they are in, directly or through others.
    fn member(&self, who: EntityUid, own: &BTreeSet<String>) -> Vec<Entity> {
        let mut entities = Vec::new();
        let mut seen: BTreeSet<String> = BTreeSet::new();
        let mut next = vec![(who, own.clone())];
        while let Some((member, own)) = next.pop() {
            let groups: BTreeSet<String> = self.groups.get(&member).into_iter().flatten().cloned().chain(own).collect();
            let parents: HashSet<EntityUid> = groups.iter().map(|group| uid("Group", group)).collect();
            entities.push(Entity::new_no_attrs(member, parents));
            for group in groups {
                if seen.insert(group.clone()) {
                    next.push((uid("Group", &group), BTreeSet::new()));
                }
            }
        }
        entities
    }
}

/// The policies under the names that their `@id` gives them, for people to find them again.
fn named(text: &str) -> Result<PolicySet, String> {
    let parsed = PolicySet::from_str(text).map_err(|errors| {
        let errors: Vec<String> = errors.iter().take(ERRORS_MAX).map(|error| placed(text, error)).collect();
        errors.join("; ")
    })?;
    if parsed.templates().next().is_some() {
        return Err(
            "it holds a template (?principal or ?resource), which nothing here fills in: write it out".to_owned()
        );
    }
    let mut policies = PolicySet::new();
    for policy in parsed.policies() {
        let named = match policy.annotation("id") {
            Some(id) if !id.is_empty() => policy.new_id(PolicyId::new(id)),
            _ => policy.clone(),
        };
        let id = named.id().to_string();
        policies.add(named).map_err(|_| format!("two policies have the id {id:?}: give each @id(...) once"))?;
    }
    Ok(policies)
}

/// An error with the line it is about.
fn placed(text: &str, error: &(impl miette::Diagnostic + ?Sized)) -> String {
    let at = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
    match at.and_then(|at| text.get(..at)) {
        Some(before) => format!("line {}: {error}", before.matches('\n').count() + 1),
        None => error.to_string(),
    }
}

/// The groups file: group = ["ann", "service:spiffe://example/ci", "group:others"].
fn members(text: &str) -> Result<HashMap<EntityUid, BTreeSet<String>>, String> {
    let groups: BTreeMap<String, Vec<String>> = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut of: HashMap<EntityUid, BTreeSet<String>> = HashMap::new();
    for (group, members) in groups {
        names::check(&group)?;
        for member in members {
            let uid = match member.strip_prefix("group:") {
                Some(inner) => {
                    names::check(inner)?;
                    uid("Group", inner)
                }
                None => of_name(&Name::parse(&member).map_err(|error| format!("group {group}: {error}"))?),
            };
            of.entry(uid).or_default().insert(group.clone());
        }
    }
    if let Some(group) = circle(&of) {
        return Err(format!("group {group} is a member of itself, directly or through others: break the circle"));
    }
    Ok(of)
}

/// A group that contains itself: Cedar's hierarchy has no circles.
fn circle(of: &HashMap<EntityUid, BTreeSet<String>>) -> Option<String> {
    let groups: BTreeSet<&String> = of.values().flatten().collect();
    groups.into_iter().find_map(|start| {
        let mut seen = BTreeSet::new();
        let mut next = vec![start];
        while let Some(group) = next.pop() {
            for above in of.get(&uid("Group", group)).into_iter().flatten() {
                if above == start {
                    return Some(start.clone());
                }
                if seen.insert(above) {
                    next.push(above);
                }
            }
        }
        None
    })
}

fn of_name(name: &Name) -> EntityUid {
    match name {
        Name::User(name) => uid("User", name),
        Name::Service(name) => uid("Service", name),
        Name::Anonymous => uid("Anonymous", "loopback"),
    }
}

/// A resource, with all that stands above it.
fn of_resource(resource: &Resource) -> Result<(EntityUid, Vec<Entity>), String> {
    let mut entities = Vec::new();
    let target = match resource {
        Resource::Coordinator => {
            let target = uid("Coordinator", "coordinator");
            entities.push(Entity::with_uid(target.clone()));
            target
        }
        Resource::Group(within) => group(within, &mut entities),
        // No group that is configured can hold a control character, so this is none of them.
        Resource::GroupOfUnknown(_) => uid("ResourceGroup", "\u{0}unknown"),
        Resource::Instance(place) => instance(place, &mut entities)?,
        Resource::Database(place, database) => {
            let above = instance(place, &mut entities)?;
            let target = uid("Database", &format!("{}/{database}", place.name));
            let name = RestrictedExpression::new_string(database.to_string());
            let attributes = HashMap::from([("name".to_owned(), name)]);
            let entity = Entity::new(target.clone(), attributes, HashSet::from([above]));
            entities.push(entity.map_err(|error| error.to_string())?);
            target
        }
    };
    Ok((target, entities))
}

fn instance(place: &Place, entities: &mut Vec<Entity>) -> Result<EntityUid, String> {
    let target = uid("Instance", place.name.as_str());
    let mut parents = HashSet::new();
    if let Some(within) = &place.within {
        parents.insert(group(within, entities));
        parents.insert(uid("Subscription", &within.subscription));
    }
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let attributes =
        HashMap::from([("engine".to_owned(), text(&place.engine)), ("region".to_owned(), text(&place.region))]);
    entities.push(Entity::new(target.clone(), attributes, parents).map_err(|error| error.to_string())?);
    Ok(target)
}

fn group(within: &Within, entities: &mut Vec<Entity>) -> EntityUid {
    let subscription = uid("Subscription", &within.subscription);
    let group = uid("ResourceGroup", &within.group());
    entities.push(Entity::with_uid(subscription.clone()));
    entities.push(Entity::new_no_attrs(group.clone(), HashSet::from([subscription])));
    group
}

fn uid(kind: &str, id: &str) -> EntityUid {
    let kind = EntityTypeName::from_str(kind).expect("a constant that is a type's name");
    EntityUid::from_type_name_and_id(kind, EntityId::new(id))
}

#[cfg(test)]
mod tests;
