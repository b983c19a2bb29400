; Stores far from anything that is mapped.
!llvm.module.flags = !{!0}
!0 = !{i32 1, !"amdhsa_code_object_version", i32 500}

define amdgpu_kernel void @kernel(ptr addrspace(1) %values, float %factor) {
  %far = getelementptr float, ptr addrspace(1) %values, i64 1234567890123
  store float %factor, ptr addrspace(1) %far
  ret void
}
