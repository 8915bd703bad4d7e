//! What rights are about, with the hierarchy in which policies see it.

use std::fmt;

use handover::{DatabaseName, InstanceName};

use super::names::Action;
use crate::store::InstanceRecord;

/// An instance as policies see it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Its name.
    pub name: InstanceName,
    /// Its engine; empty for one that is not known.
    pub engine: String,
    /// Its region.
    pub region: String,
    /// Where it stands; nothing for one that is not known: no policy for a group or a subscription covers it.
    pub within: Option<Within>,
}

/// The groups an instance stands in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Within {
    /// Its subscription; may be empty.
    pub subscription: String,
    /// Its resource group; may be empty.
    pub resource_group: String,
}

/// What a right is about. Written as `database:west/shop`, `instance:west`, `resource-group:prod/shop` (`SUBSCRIPTION/GROUP`,
/// or `GROUP` alone without subscription) and `coordinator`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Resource {
    /// The coordinator itself.
    Coordinator,
    /// A resource group.
    Group(Within),
    /// The resource group of an instance that is not known.
    GroupOfUnknown(InstanceName),
    /// An instance.
    Instance(Place),
    /// A database at an instance, whether it exists or not.
    Database(Place, DatabaseName),
}

impl Place {
    /// An instance that is known.
    pub fn of(record: &InstanceRecord) -> Self {
        Self {
            name: record.name.clone(),
            engine: record.engine.clone(),
            region: record.region.clone(),
            within: Some(Within {
                subscription: record.subscription.clone(),
                resource_group: record.resource_group.clone(),
            }),
        }
    }

    /// The resource group it stands in.
    pub fn group(&self) -> Resource {
        match &self.within {
            Some(within) => Resource::Group(within.clone()),
            None => Resource::GroupOfUnknown(self.name.clone()),
        }
    }

    /// An instance that is not known.
    pub fn unknown(name: InstanceName) -> Self {
        Self { name, engine: String::new(), region: String::new(), within: None }
    }
}

impl Resource {
    /// Whether there is such a right to it.
    pub fn takes(&self, action: Action) -> bool {
        match self {
            Self::Coordinator => action == Action::Admin,
            Self::Group(_) | Self::GroupOfUnknown(_) => action == Action::Read,
            Self::Instance(_) => action != Action::Write,
            Self::Database(..) => true,
        }
    }

    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Group(_) | Self::GroupOfUnknown(_) => "resource group",
            Self::Instance(_) => "instance",
            Self::Database(..) => "database",
        }
    }
}

impl Within {
    /// From the name that [`Within::group`] makes.
    pub fn parse(group: &str) -> Self {
        let plain = |text: &str| text.replace("%2F", "/").replace("%25", "%");
        match group.split_once('/') {
            Some((subscription, group)) => Self { subscription: plain(subscription), resource_group: plain(group) },
            None => Self { subscription: String::new(), resource_group: plain(group) },
        }
    }

    /// The name of the resource group in policies. Two subscriptions may have groups of one name, so it stands with its
    /// subscription; a slash in either is written `%2F`, else one could be made to look like the other.
    pub fn group(&self) -> String {
        let plain = |text: &str| text.replace('%', "%25").replace('/', "%2F");
        match self.subscription.as_str() {
            "" => plain(&self.resource_group),
            subscription => format!("{}/{}", plain(subscription), plain(&self.resource_group)),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.write_str("coordinator"),
            Self::Group(within) => write!(f, "resource-group:{}", within.group()),
            Self::GroupOfUnknown(name) => write!(f, "the resource group of {name}, which is not known"),
            Self::Instance(place) => write!(f, "instance:{}", place.name),
            Self::Database(place, database) => write!(f, "database:{}/{database}", place.name),
        }
    }
}
