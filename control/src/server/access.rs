//! Who may do what: a decision over numbers, and the look-ups that feed it.

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use tracing::warn;

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read and change.
    Change,
    /// Read.
    Read,
    /// Not even connect.
    Nothing,
}

/// Who is let in; from `appliance.socket_group` and `appliance.socket_public_read`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// User that lbd runs as: it could reach lbd's memory and files anyway.
    pub owner: u32,
    /// Group that may change, beside root.
    pub group: Option<u32>,
    /// Whether everybody may read.
    pub public_read: bool,
}

/// A process on the other side of the socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective user, from SO_PEERCRED.
    pub uid: u32,
    /// Effective group, from SO_PEERCRED.
    pub gid: u32,
    /// Groups that the user database gives this user.
    pub groups: Vec<u32>,
}

impl Policy {
    /// The policy of this process.
    pub fn new(group: Option<u32>, public_read: bool) -> Self {
        Self { owner: geteuid().as_raw(), group, public_read }
    }

    /// What `peer` may do.
    pub fn decide(&self, peer: &Peer) -> Access {
        let member = self.group.is_some_and(|group| peer.gid == group || peer.groups.contains(&group));
        match (peer.uid == 0 || peer.uid == self.owner || member, self.public_read) {
            (true, _) => Access::Change,
            (false, true) => Access::Read,
            (false, false) => Access::Nothing,
        }
    }

    /// What a process of this user and group may do. Asks the user database, which may block.
    pub fn access_of(&self, uid: u32, gid: u32) -> Access {
        let peer = Peer { uid, gid, groups: Vec::new() };
        match (self.decide(&peer), self.group) {
            // Only membership could still change the answer.
            (Access::Read | Access::Nothing, Some(_)) => {
                self.decide(&Peer { groups: groups_of(uid), ..peer })
            }
            (access, _) => access,
        }
    }

    /// Why [`Access::Nothing`].
    pub fn explain_refusal(&self, uid: u32) -> String {
        let group = self.group.map_or_else(String::new, |gid| format!(" and members of group {gid}"));
        format!(
            "user {uid} may not talk to lbd: root{group} may, others need `appliance.socket_public_read = true`"
        )
    }
}

/// The groups of a user by the user database; none when it cannot tell.
fn groups_of(uid: u32) -> Vec<u32> {
    let user = match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user,
        Ok(None) => return Vec::new(),
        Err(error) => {
            warn!(uid, %error, "cannot look up an API client's user");
            return Vec::new();
        }
    };
    // A name with a zero byte is in no database.
    let Ok(name) = std::ffi::CString::new(user.name) else { return Vec::new() };
    match getgrouplist(&name, user.gid) {
        Ok(groups) => groups.into_iter().map(Gid::as_raw).collect(),
        Err(error) => {
            warn!(uid, %error, "cannot look up the groups of an API client");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer { uid, gid, groups: groups.to_vec() }
    }

    #[test]
    fn root_the_owner_and_the_group_may_change() {
        let policy = Policy { owner: 500, group: Some(77), public_read: false };
        for (who, want) in [
            (peer(0, 0, &[]), Access::Change),
            (peer(500, 500, &[]), Access::Change),
            (peer(1000, 77, &[]), Access::Change),
            (peer(1000, 1000, &[4, 77]), Access::Change),
            (peer(1000, 1000, &[4, 78]), Access::Nothing),
            // A group id is no user id and the other way round.
            (peer(77, 1000, &[]), Access::Nothing),
            (peer(1000, 0, &[0]), Access::Nothing),
        ] {
            assert_eq!(policy.decide(&who), want, "{who:?}");
        }
    }

    #[test]
    fn others_may_read_when_the_socket_is_public() {
        let policy = Policy { owner: 0, group: Some(77), public_read: true };
        assert_eq!(policy.decide(&peer(1000, 1000, &[])), Access::Read);
        assert_eq!(policy.decide(&peer(1000, 1000, &[77])), Access::Change);
    }

    #[test]
    fn without_a_group_only_root_and_the_owner_may_change() {
        let policy = Policy { owner: 500, group: None, public_read: false };
        assert_eq!(policy.decide(&peer(1000, 1000, &[0, 77])), Access::Nothing);
        assert_eq!(policy.decide(&peer(0, 1, &[])), Access::Change);
    }

    #[test]
    fn supplementary_groups_come_from_the_user_database() {
        // Every Linux system has root in group 0; the peer's own group says nothing here.
        let policy = Policy { owner: 1, group: Some(0), public_read: false };
        assert!(groups_of(0).contains(&0));
        assert!(groups_of(u32::MAX - 7).is_empty());
        assert_eq!(policy.access_of(u32::MAX - 7, 12345), Access::Nothing);
        assert_eq!(policy.access_of(u32::MAX - 7, 0), Access::Change);
    }
}
