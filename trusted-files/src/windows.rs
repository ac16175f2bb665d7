//! Who may write to a file by its access list (DACL).
//!
//! The owner, and everyone whom the list lets write, must be this user, the system, or an administrator. The list is read as it
//! stands: an entry that denies takes nothing back here, so at worst a safe file is refused.

use std::fs::{File, Metadata};
use std::io;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::AsRawHandle;
use std::path::Path;
use std::ptr;

use windows_sys::Win32::Foundation::{CloseHandle, GENERIC_ALL, GENERIC_WRITE, LocalFree};
use windows_sys::Win32::Security::Authorization::{GetSecurityInfo, SE_FILE_OBJECT};
use windows_sys::Win32::Security::{
    ACCESS_ALLOWED_ACE, ACE_HEADER, ACL, DACL_SECURITY_INFORMATION, GetAce, GetLengthSid,
    GetTokenInformation, INHERIT_ONLY_ACE, LookupAccountSidW, OWNER_SECURITY_INFORMATION, PSID, TOKEN_QUERY,
    TOKEN_USER, TokenUser,
};
use windows_sys::Win32::Storage::FileSystem::{
    DELETE, FILE_ADD_FILE, FILE_ADD_SUBDIRECTORY, FILE_APPEND_DATA, FILE_DELETE_CHILD,
    FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT, FILE_SHARE_READ, FILE_WRITE_DATA, READ_CONTROL,
    WRITE_DAC, WRITE_OWNER,
};
use windows_sys::Win32::System::SystemServices::{
    ACCESS_ALLOWED_ACE_TYPE, ACCESS_ALLOWED_CALLBACK_ACE_TYPE, ACCESS_DENIED_ACE_TYPE,
    ACCESS_DENIED_CALLBACK_ACE_TYPE, ACCESS_DENIED_CALLBACK_OBJECT_ACE_TYPE, ACCESS_DENIED_OBJECT_ACE_TYPE,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

use super::{Refusal, unusable};

/// Rights to take something's place, or to give oneself more rights.
const REPLACE: u32 = DELETE | WRITE_DAC | WRITE_OWNER | GENERIC_ALL;
/// Rights to a file that change what is in it.
const CHANGE_FILE: u32 = REPLACE | FILE_WRITE_DATA | FILE_APPEND_DATA | GENERIC_WRITE;
/// Rights to a folder that change what is in it: a library is loaded with others from beside it.
const CHANGE_FOLDER: u32 =
    REPLACE | FILE_ADD_FILE | FILE_ADD_SUBDIRECTORY | FILE_DELETE_CHILD | GENERIC_WRITE;
/// Rights to a folder above that change what a path through it leads to. Who may only add to it can't swap what is there.
const CHANGE_PATH: u32 = REPLACE | FILE_DELETE_CHILD;

/// Opens a file to read it. While it is open, nobody can write to it or put another in its place.
pub(super) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).share_mode(FILE_SHARE_READ).open(path)
}

/// Checks a file that is open.
pub(super) fn check_file(file: &File, _: &Metadata) -> Result<(), Refusal> {
    check(file, "the file", CHANGE_FILE)
}

/// Checks a folder above a file, its own or one further up.
pub(super) fn check_folder(folder: &Path, what: &str, is_own: bool) -> Result<(), Refusal> {
    let opened = File::options()
        .access_mode(READ_CONTROL)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
        .open(folder)
        .map_err(|error| unusable(&format!("{what} can't be looked at"), &error))?;
    check(&opened, what, if is_own { CHANGE_FOLDER } else { CHANGE_PATH })
}

/// Refuses something that others own, or have one of these rights to.
fn check(file: &File, what: &str, rights: u32) -> Result<(), Refusal> {
    let unread = |error: &io::Error| unusable(&format!("the access list of {what} can't be read"), error);
    let list = Access::of(file).map_err(|error| unread(&error))?;
    let trusted = trusted().map_err(|error| unread(&error))?;
    let is_trusted = |account: &Account| trusted.contains(&account.sid);
    if !is_trusted(&list.owner) {
        return Err(Refusal::Untrusted(format!(
            "{what} belongs to {}, where you or an administrator was expected",
            list.owner.name
        )));
    }
    let Some(entries) = list.entries else {
        return Err(Refusal::Untrusted(format!(
            "{what} has no access list, so everybody may write to it, where only its owner was expected to"
        )));
    };
    match entries.iter().find(|(account, given)| given & rights != 0 && !is_trusted(account)) {
        Some((account, _)) => Err(Refusal::Untrusted(format!(
            "{what} has an access list that lets {} write to it, where only its owner and administrators were expected to",
            account.name
        ))),
        None => Ok(()),
    }
}

/// Whom something belongs to and who may do what with it.
struct Access {
    owner: Account,
    /// `None`: everybody may do everything.
    entries: Option<Vec<(Account, u32)>>,
}

/// Someone in an access list.
struct Account {
    sid: Vec<u8>,
    name: String,
}

impl Access {
    fn of(file: &File) -> io::Result<Self> {
        let (mut owner, mut list, mut descriptor) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        // SAFETY: the handle is open; the pointers are our own to be filled, and point into the descriptor, which is freed below.
        let status = unsafe {
            GetSecurityInfo(
                file.as_raw_handle(),
                SE_FILE_OBJECT,
                OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION,
                &raw mut owner,
                ptr::null_mut(),
                &raw mut list,
                ptr::null_mut(),
                &raw mut descriptor,
            )
        };
        if status != 0 {
            return Err(io::Error::from_raw_os_error(status.cast_signed()));
        }
        // SAFETY: the system gave both, and the descriptor that they are in is still there.
        let access = unsafe {
            if owner.is_null() {
                Err(io::Error::other("it has no owner"))
            } else {
                let entries = if list.is_null() { Ok(None) } else { entries(list).map(Some) };
                entries.map(|entries| Self { owner: Account::of(owner), entries })
            }
        };
        // SAFETY: GetSecurityInfo's contract: the descriptor is the caller's to free.
        unsafe { LocalFree(descriptor) };
        access
    }
}

/// The entries that give rights to what has the list, not only to what is made in it.
///
/// # Safety
/// The list is one of the system's.
unsafe fn entries(list: *const ACL) -> io::Result<Vec<(Account, u32)>> {
    let mut entries = Vec::new();
    // SAFETY: the caller's contract.
    for index in 0..u32::from(unsafe { (*list).AceCount }) {
        let mut entry = ptr::null_mut();
        // SAFETY: the list is the system's, and has an entry of that number.
        if unsafe { GetAce(list, index, &raw mut entry) } == 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: every entry begins with a header.
        let header = unsafe { entry.cast::<ACE_HEADER>().read() };
        if u32::from(header.AceFlags) & INHERIT_ONLY_ACE != 0 {
            continue;
        }
        match u32::from(header.AceType) {
            ACCESS_ALLOWED_ACE_TYPE | ACCESS_ALLOWED_CALLBACK_ACE_TYPE => {
                let entry = entry.cast::<ACCESS_ALLOWED_ACE>();
                // SAFETY: entries of both kinds begin with such a struct, whose last field is the SID's first.
                let (account, rights) =
                    unsafe { (Account::of((&raw mut (*entry).SidStart).cast()), (*entry).Mask) };
                entries.push((account, rights));
            }
            ACCESS_DENIED_ACE_TYPE
            | ACCESS_DENIED_CALLBACK_ACE_TYPE
            | ACCESS_DENIED_OBJECT_ACE_TYPE
            | ACCESS_DENIED_CALLBACK_OBJECT_ACE_TYPE => {}
            other => return Err(io::Error::other(format!("it has an entry of kind {other}"))),
        }
    }
    Ok(entries)
}

impl Account {
    /// # Safety
    /// The SID is one of the system's.
    unsafe fn of(sid: PSID) -> Self {
        // SAFETY: the caller's contract; the system says how long it is.
        let bytes = unsafe { std::slice::from_raw_parts(sid.cast::<u8>(), GetLengthSid(sid) as usize) };
        // SAFETY: the caller's contract.
        Self { sid: bytes.to_vec(), name: unsafe { name(sid) } }
    }
}

/// An account's name, as `DOMAIN\NAME`.
///
/// # Safety
/// The SID is one of the system's.
unsafe fn name(sid: PSID) -> String {
    let (mut name, mut domain) = ([0_u16; 257], [0_u16; 257]);
    let (mut name_len, mut domain_len, mut kind) = (name.len() as u32, domain.len() as u32, 0);
    // SAFETY: the caller's contract; both buffers have as many units as stated.
    let found = unsafe {
        LookupAccountSidW(
            ptr::null(),
            sid,
            name.as_mut_ptr(),
            &raw mut name_len,
            domain.as_mut_ptr(),
            &raw mut domain_len,
            &raw mut kind,
        )
    };
    if found == 0 {
        return "an account without a name".to_owned();
    }
    let text = |units: &[u16], len: u32| String::from_utf16_lossy(&units[..units.len().min(len as usize)]);
    match text(&domain, domain_len) {
        domain if domain.is_empty() => text(&name, name_len),
        domain => format!("{domain}\\{}", text(&name, name_len)),
    }
}

/// The SIDs of this user, the system, administrators, Windows' installer, and the owner, who is one of these.
fn trusted() -> io::Result<Vec<Vec<u8>>> {
    let system = sid(5, &[18]);
    let administrators = sid(5, &[32, 544]);
    let installer = sid(5, &[80, 956_008_885, 3_418_522_649, 1_831_038_044, 1_853_292_631, 2_271_478_464]);
    let (creator, owner) = (sid(3, &[0]), sid(3, &[4]));
    Ok(vec![this_user()?, system, administrators, installer, creator, owner])
}

/// A SID's bytes: its version, how many numbers it has, who gave them (big-endian), and the numbers (little-endian).
fn sid(authority: u8, numbers: &[u32]) -> Vec<u8> {
    let head = [1, numbers.len() as u8, 0, 0, 0, 0, 0, authority];
    head.into_iter().chain(numbers.iter().flat_map(|number| number.to_le_bytes())).collect()
}

/// The SID of this process's user.
fn this_user() -> io::Result<Vec<u8>> {
    let mut token = ptr::null_mut();
    // SAFETY: the handle is this process's, and the token our own to be filled.
    if unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) } == 0 {
        return Err(io::Error::last_os_error());
    }
    // Room for the struct and the longest SID behind it, aligned as pointers are.
    let mut user = [0_usize; 32];
    let mut len = 0;
    // SAFETY: the buffer has as many bytes as stated.
    let known = unsafe {
        let bytes = size_of_val(&user) as u32;
        GetTokenInformation(token, TokenUser, user.as_mut_ptr().cast(), bytes, &raw mut len)
    };
    let failed = (known == 0).then(io::Error::last_os_error);
    // SAFETY: the token was opened above, and is used no more.
    unsafe { CloseHandle(token) };
    match failed {
        Some(error) => Err(error),
        // SAFETY: the system wrote the struct, whose SID is in the same buffer.
        None => Ok(unsafe { Account::of((*user.as_ptr().cast::<TOKEN_USER>()).User.Sid) }.sid),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use windows_sys::Win32::Security::Authorization::SetSecurityInfo;
    use windows_sys::Win32::Security::{ACL_REVISION, AddAccessAllowedAce, InitializeAcl};
    use windows_sys::Win32::Storage::FileSystem::{FILE_ALL_ACCESS, FILE_GENERIC_READ};

    use super::*;

    /// Gives this user all rights, and everybody these.
    fn allow_everybody(path: &Path, rights: u32) {
        let user = this_user().expect("a user");
        let everybody = sid(1, &[0]);
        let mut list = [0_u32; 64];
        let acl: *mut ACL = list.as_mut_ptr().cast();
        let file = File::options()
            .access_mode(READ_CONTROL | WRITE_DAC)
            .custom_flags(FILE_FLAG_BACKUP_SEMANTICS)
            .open(path)
            .expect("it can be opened");
        // SAFETY: the list has as many bytes as stated, which are more than two entries take; the SIDs are sound.
        unsafe {
            assert_ne!(InitializeAcl(acl, size_of_val(&list) as u32, ACL_REVISION), 0);
            for (sid, rights) in [(user, FILE_ALL_ACCESS), (everybody, rights)] {
                assert_ne!(AddAccessAllowedAce(acl, ACL_REVISION, rights, sid.as_ptr().cast_mut().cast()), 0);
            }
            let (handle, what) = (file.as_raw_handle(), DACL_SECURITY_INFORMATION);
            let none = ptr::null_mut();
            assert_eq!(SetSecurityInfo(handle, SE_FILE_OBJECT, what, none, none, acl, none.cast()), 0);
        }
    }

    fn file() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().expect("a temporary folder");
        let folder = home.path().canonicalize().expect("a path").join("a").join("b");
        fs::create_dir_all(&folder).expect("folders");
        let file = folder.join("library.dll");
        fs::write(&file, "code").expect("a file");
        for path in file.ancestors().take(3) {
            allow_everybody(path, FILE_GENERIC_READ);
        }
        (home, file)
    }

    fn said(path: &Path) -> Option<String> {
        super::super::check(path).err().map(|refusal| refusal.to_string())
    }

    #[test]
    fn what_everybody_may_write_to_is_refused() {
        let (_home, file) = file();
        assert_eq!(said(&file), None);
        let folder = file.parent().expect("b");
        let above = folder.parent().expect("a");
        for (path, what) in
            [(&*file, "the file"), (folder, "its folder"), (above, "the folder"), (above, "above it")]
        {
            allow_everybody(path, FILE_ALL_ACCESS);
            let sentence = said(&file).expect("it is refused");
            assert!(sentence.contains(what) && sentence.contains("write to it"), "{sentence}");
            allow_everybody(path, FILE_GENERIC_READ);
        }
        assert_eq!(said(&file), None);
        assert!(said(folder).is_some(), "a folder is no file");
    }

    #[test]
    fn an_open_file_stays_what_it_is() {
        let (_home, file) = file();
        let held = super::super::open(&file, true).expect("it is ours");
        assert!(fs::write(&file, "other code").is_err());
        drop(held);
        fs::write(&file, "other code").expect("nobody holds it any more");
    }

    #[test]
    fn sids_are_written_as_the_system_writes_them() {
        let user = this_user().expect("a user");
        assert_eq!(user.len(), 8 + 4 * usize::from(user[1]));
        assert_eq!(user[0], 1);
    }
}
