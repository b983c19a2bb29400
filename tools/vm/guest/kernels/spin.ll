; Never ends.
!llvm.module.flags = !{!0}
!0 = !{i32 1, !"amdhsa_code_object_version", i32 500}

define amdgpu_kernel void @kernel(ptr addrspace(1) %values, float %factor) {
  br label %again

again:
  %value = load volatile float, ptr addrspace(1) %values
  br label %again
}
